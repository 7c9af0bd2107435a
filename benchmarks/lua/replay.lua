-- Sends the requests of a file, one after the other, again and again. Arguments: the file.
local common = dofile(os.getenv("BENCHMARKS_LUA") .. "/common.lua")

local requests, size
local last = 0

function init(args)
   requests = common.requests(args[1])
   size = #requests
end

function request()
   last = last % size + 1
   return requests[last]
end
