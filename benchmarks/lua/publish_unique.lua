-- Publishes messages of which no two are alike, and writes down the ids that were answered. Arguments: the path, messages
-- in a request, the text before and after the number in a payload, the file for the ids.
dofile(os.getenv("BENCHMARKS_LUA") .. "/common.lua")

local head, batch, before, after, log
local number = 100000000

function init(args)
   head = "POST " .. args[1] .. " HTTP/1.1\r\nHost: localhost\r\nPrefer: return=representation\r\n"
   batch, before, after = tonumber(args[2]), args[3], args[4]
   log = assert(io.open(args[5], "w"))
   counts.sent, counts.answered = -batch, 0 -- the first request is not sent
end

function request()
   local messages = {}
   for index = 1, batch do
      messages[index] = before .. number .. after
      number = number + 1
   end
   counts.sent = counts.sent + batch
   local body = "[" .. table.concat(messages, ",") .. "]"
   return string.format("%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", head, #body, body)
end

function response(status, _, body)
   if status ~= 201 then return end
   for id in string.gmatch(body, '"(%x+%-[%x%-]+)"') do
      counts.answered = counts.answered + 1
      log:write(id, "\n")
   end
   log:flush()
end
