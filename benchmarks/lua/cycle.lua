-- Publishes, pulls and settles without end: of what is pulled, 5 % is given back at once and 1 % is left to its ack
-- deadline. Arguments: a file with the requests of a publish and of a pull, the paths for acks and nacks, the messages of a
-- batch, the messages that are there at the start.
local common = dofile(os.getenv("BENCHMARKS_LUA") .. "/common.lua")

local NACKED, DROPPED = 0.05, 0.01
local NACK_BATCH = 5

local publish, pull, ack, nack, batch, available
local pulled, acks, nacks = {}, {}, {}

-- The server repeats this header in its answer, which tells the answers without a body apart.
local function named(name)
   return "X-Request-ID: " .. name .. "\r\n"
end

function init(args)
   local requests = common.requests(args[1])
   publish, pull = requests[1], requests[2]
   batch = tonumber(args[4])
   ack = common.settler(args[2], batch, named("ack"))
   nack = common.settler(args[3], NACK_BATCH, named("nack"))
   available = tonumber(args[5])
   counts.published, counts.pulled, counts.acked, counts.nacked, counts.dropped, counts.empty = 0, 0, 0, 0, 0, 0
end

function request()
   if #acks >= batch then return ack(acks) end
   if #nacks >= NACK_BATCH then return nack(nacks) end
   if available >= batch then
      available = available - batch
      return pull
   end
   return publish
end

local function share()
   for index = 1, #pulled do
      local chance = math.random()
      if chance < DROPPED then
         counts.dropped = counts.dropped + 1 -- comes again, and is not counted on: so there is always something to pull
      elseif chance < DROPPED + NACKED then
         nacks[#nacks + 1] = pulled[index]
      else
         acks[#acks + 1] = pulled[index]
      end
      pulled[index] = nil
   end
end

function response(status, headers, body)
   if status == 200 then
      common.take_ack_ids(body, pulled)
      counts.pulled = counts.pulled + #pulled
      available = available + batch - #pulled
      if #pulled == 0 then counts.empty = counts.empty + 1 end
      share()
   elseif status == 204 then
      local name = headers["x-request-id"]
      if name == "ack" then
         counts.acked = counts.acked + batch
         common.settled(batch)
      elseif name == "nack" then
         counts.nacked = counts.nacked + NACK_BATCH
         available = available + NACK_BATCH
      else
         counts.published = counts.published + batch
         available = available + batch
      end
   end
end
