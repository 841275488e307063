-- Reads the head as field, value, … and the records of the window, lowest first, in one step. They are compared with each
-- other and with the stream: if a key was deleted or replaced, continuing would lose or duplicate entries.
--
-- Returns the head, the window | corrupt, why | newer, its version

local head = readHead()
if newer(head) then return newer(head) end
local window = redis.call('ZRANGE', windowKey, 0, -1)
local top = parse(window[#window])
local entries = redis.call('XLEN', stream)

local function corrupt()
  if not head.number then
    if top then return 'it has records of blocks and no head' end
    if entries > 0 and not head.epoch then return 'its stream has entries and it has no head' end
    return nil
  end
  return misfit(head)
end

local why = corrupt()
if why then return { 'corrupt', why } end
return { redis.call('HGETALL', headKey), window }
