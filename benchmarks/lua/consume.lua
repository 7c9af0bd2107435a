-- Pulls and acks: an ack as soon as there are ids for one, else a pull. Arguments: a file with the request of a pull, the
-- path for acks, ids in an ack, after how many acked messages to stop (0: never), a file for what was pulled ("": none),
-- and "pulls" if an ack is answered with the next messages, or "all" if an ack has what is there, however few.
local common = dofile(os.getenv("BENCHMARKS_LUA") .. "/common.lua")

local pull, ack, batch, limit, log
local settlers = {}
local ids = {}

function init(args)
   pull = common.requests(args[1])[1]
   batch = tonumber(args[3])
   if args[6] == "pulls" then
      ack = common.settler(args[2], batch, "X-Request-ID: acks\r\n", '{"acks":["', '"]}')
   else
      ack = common.settler(args[2], batch)
   end
   for size = 1, args[6] == "all" and batch or 0 do settlers[size] = common.settler(args[2], size) end
   limit = tonumber(args[4])
   log = args[5] ~= "" and assert(io.open(args[5], "w"))
   counts.pulls, counts.pulled, counts.empty, counts.acked = 0, 0, 0, 0
end

function request()
   local settler = settlers[math.min(#ids, batch)]
   if settler then
      counts.acked = counts.acked + math.min(#ids, batch)
      return settler(ids)
   end
   if #ids >= batch then return ack(ids) end
   return pull
end

-- An ack is answered with 204, a pull with 200; one that does both is known by the header that the server repeats.
function response(status, headers, body)
   if #settlers == 0 and (status == 204 or headers["x-request-id"] == "acks") then
      counts.acked = counts.acked + batch
      if limit > 0 and counts.acked >= limit then common.stop() end
   end
   if status == 200 then
      local before = #ids
      common.take_ack_ids(body, ids)
      counts.pulls = counts.pulls + 1
      counts.pulled = counts.pulled + #ids - before
      if #ids == before then counts.empty = counts.empty + 1 end
      if log then
         for id, number in string.gmatch(body, '"id":"([^"]+)","subscription_id":"[^"]*","payload":{"n":(%d+)') do
            log:write(id, " ", number, "\n")
         end
         log:flush()
      end
   end
end
