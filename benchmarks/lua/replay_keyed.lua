-- Like replay.lua, with another Idempotency-Key in each request. Arguments: the file, the header as it is in its requests, and
-- where the numbers begin, so that two runs have no key in common.
local common = dofile(os.getenv("BENCHMARKS_LUA") .. "/common.lua")

local halves, size, number
local last = 0

function init(args)
   halves = {}
   for index, request in ipairs(common.requests(args[1])) do
      local first, after = string.find(request, args[2], 1, true)
      halves[index] = { string.sub(request, 1, first - 1) .. "Idempotency-Key: ", string.sub(request, after + 1) }
   end
   size = #halves
   number = tonumber(args[3])
end

function request()
   last = last % size + 1
   number = number + 1
   return halves[last][1] .. string.format("%.0f", number) .. halves[last][2]
end
