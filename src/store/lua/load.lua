-- The head as field, value, … and the records of the window, lowest first, at one moment. They are compared with each other
-- and with the stream: where one of the keys is gone or another one's, going on would lose or double entries.
--
-- Returns the head, the window | corrupt, why | newer, its version

local head = readHead()
if newer(head) then return newer(head) end
local window = redis.call('ZRANGE', windowKey, 0, -1)
local top = parse(window[#window])
local entries = redis.call('XLEN', stream)

-- The highest id that the stream ever had; '0-0' without a stream, or where this user may not ask.
local function lastId()
  local info = redis.pcall('XINFO', 'STREAM', stream)
  for i = 1, info.err and 0 or #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return nil
end

local function corrupt()
  if not head.number then
    if top then return 'it has records of blocks and no head' end
    if entries > 0 and not head.epoch then return 'its stream has entries and it has no head' end
    return nil
  end
  local why = misfit(head)
  if why then return why end
  local last = top and top.count > 0 and lastId()
  if last and isBefore(place(last), place(top.last)) then return 'its stream ends before its last record' end
  return nil
end

local why = corrupt()
if why then return { 'corrupt', why } end
return { redis.call('HGETALL', headKey), window }
