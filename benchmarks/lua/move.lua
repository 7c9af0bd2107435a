-- Pulls, and turns what was pulled into other messages: acks and publishes in one request, or one after the other. Arguments:
-- a file with the request of a pull, the path of the first, how the body begins and ends around the ack ids, messages of a
-- batch, a file with the request of a publish ("": the first request publishes too).
local common = dofile(os.getenv("BENCHMARKS_LUA") .. "/common.lua")

local pull, settle, batch, publish
local ids, is_acked = {}, false

function init(args)
   pull = common.requests(args[1])[1]
   batch = tonumber(args[5])
   settle = common.settler(args[2], batch, nil, args[3], args[4])
   publish = args[6] ~= "" and common.requests(args[6])[1]
   counts.pulled, counts.empty, counts.acked = 0, 0, 0
end

function request()
   if is_acked then
      is_acked = false
      return publish
   end
   if #ids < batch then return pull end
   counts.acked = counts.acked + batch
   is_acked = publish
   return settle(ids)
end

function response(status, headers, body)
   if status ~= 200 then return end
   local before = #ids
   common.take_ack_ids(body, ids)
   counts.pulled = counts.pulled + #ids - before
   if #ids == before then counts.empty = counts.empty + 1 end
end
