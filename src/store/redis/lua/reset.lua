-- Deletes a chain's head and window, and with `delete` its entries; `from` is where it starts again. The new head carries a
-- new epoch, so that readers do not mistake the new journal for the old one.
--
-- ARGV  from or '', delete (0 or 1), filter, the token of the new epoch
-- Returns reset | newer, its version

local head = readHead()
if newer(head) then return newer(head) end
redis.call('DEL', headKey, windowKey, missedKey, filtersKey)
if ARGV[2] == '1' then redis.call('DEL', stream) end
redis.call('HSET', headKey, 'version', text(version), 'epoch', ARGV[4], 'epoch_reason', 'reset', 'added', '0',
  'abi', '', 'paused', '0')
if ARGV[1] ~= '' then
  local from = tonumber(ARGV[1])
  redis.call('HSET', headKey, 'number', text(from - 1), 'hash', '', 'part', '0', 'start_number', text(from),
    'start_hash', '', 'filter', ARGV[3], 'filter_since', text(from), 'part_digest', '', 'first_number', text(from))
end
return { 'reset' }
