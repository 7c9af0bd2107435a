-- What the scripts share: requests from a file, ack ids out of answers, and one line of JSON at the end.
-- wrk calls request() once before the load starts, to look at what it returns, and does not send that one.

local ffi = require("ffi")
ffi.cdef("int getpid(void); int kill(int pid, int number);")

local common = {}

counts = {}  -- numbers by name; global, because done() runs in another Lua state and reads them from this one
seconds = {} -- second of the clock -> messages settled in it

local threads = {}

function setup(thread)
   threads[#threads + 1] = thread
end

local function object(of)
   local members = {}
   for name, value in pairs(of) do
      members[#members + 1] = string.format('"%s":%.0f', name, value)
   end
   return "{" .. table.concat(members, ",") .. "}"
end

function done(summary, latency)
   local percentiles = {}
   for _, p in ipairs({ 50, 90, 99, 99.9 }) do
      percentiles[tostring(p)] = latency:percentile(p)
   end
   percentiles["100"] = latency.max
   io.write(string.format(
      'RESULT {"requests":%d,"microseconds":%d,"errors":%s,"latency":%s,"counts":%s,"seconds":%s}\n',
      summary.requests, summary.duration, object(summary.errors), object(percentiles),
      object(threads[1]:get("counts") or {}), object(threads[1]:get("seconds") or {})
   ))
end

-- Each is a line with its number of bytes, and then these bytes.
function common.requests(path)
   local file = assert(io.open(path, "rb"))
   local all = {}
   while true do
      local size = file:read("*n")
      if not size then break end
      file:read(1)
      all[#all + 1] = file:read(size)
   end
   file:close()
   return all
end

local KEY = '"ack_id":"'
local KEY_BYTES = #KEY
common.ACK_ID_BYTES = 53 -- a UUID, a dot, 16 digits
local stride = 0

-- Appends the ack ids of an answer to a list. Messages of one size are equally far apart: look there before searching.
function common.take_ack_ids(body, list)
   local size = #list
   local at = string.find(body, KEY, 1, true)
   while at do
      size = size + 1
      list[size] = string.sub(body, at + KEY_BYTES, at + KEY_BYTES + common.ACK_ID_BYTES - 1)
      local next = at + stride
      if stride == 0 or string.sub(body, next, next + KEY_BYTES - 1) ~= KEY then
         next = string.find(body, KEY, at + KEY_BYTES, true)
         stride = next and next - at or 0
      end
      at = next
   end
end

-- A function that settles the last `batch` of a list of ack ids: ids of one length make requests of one length. The ids
-- stand between `opening` and `closing`; without these the body is the list.
function common.settler(path, batch, headers, opening, closing)
   opening, closing = opening or '["', closing or '"]'
   local head = string.format(
      'POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s',
      path, headers or "", batch * (common.ACK_ID_BYTES + 3) - 3 + #opening + #closing, opening
   )
   return function(ids)
      local size = #ids
      local body = table.concat(ids, '","', size - batch + 1, size)
      for index = size, size - batch + 1, -1 do ids[index] = nil end
      return head .. body .. closing
   end
end

-- Ends the run; thread:stop() would leave the main thread of wrk asleep.
function common.stop()
   ffi.C.kill(ffi.C.getpid(), 2)
end

function common.settled(messages)
   local now = os.time()
   seconds[now] = (seconds[now] or 0) + messages
end

return common
