-- Continues the journal with another filter. A block half written under the old one is to be undone.
--
-- ARGV  filter

local head = readHead()
if not head then return { 'nothing' } end
local part, since = head.part, head.number + 1
if part ~= 0 then since = head.number end
if part > 0 then part = -part end
redis.call('HSET', headKey, 'filter', ARGV[1], 'filter_since', text(since), 'part', text(part), 'part_digest', '')
return { 'taken over' }
