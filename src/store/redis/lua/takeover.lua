-- Continues the journal with another filter. A block that is partially written under the old filter will be retracted. The
-- replaced filter is kept among the last 20: an ingestor that still has it is out of date.
--
-- ARGV  filter, its description or ''
-- Returns taken over | nothing | newer, its version

local head = readHead()
if newer(head) then return newer(head) end
if not head.number then return { 'nothing' } end
mayWrite()
local part, since = head.part, head.number + 1
if part ~= 0 then since = head.number end
if part > 0 then part = -part end
if head.filter ~= ARGV[1] then
  for _, filter in ipairs({ head.filter, ARGV[1] }) do redis.call('LREM', filtersKey, 0, filter) end
  redis.call('RPUSH', filtersKey, head.filter)
  redis.call('LTRIM', filtersKey, -20, -1)
end
redis.call('HSET', headKey, 'filter', ARGV[1], 'filter_since', text(since), 'part', text(part), 'part_digest', '',
  'filter_content', ARGV[2])
return { 'taken over' }
