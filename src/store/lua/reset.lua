-- Forgets a chain's head and window, and with `delete` its entries; `from` is where it is to begin again.
--
-- ARGV  from or '', delete (0 or 1), filter

redis.call('DEL', headKey, windowKey)
if ARGV[2] == '1' then redis.call('DEL', stream) end
if ARGV[1] ~= '' then
  local from = tonumber(ARGV[1])
  redis.call('HSET', headKey, 'number', text(from - 1), 'hash', '', 'part', '0', 'start_number', text(from),
    'start_hash', '', 'filter', ARGV[3], 'filter_since', text(from), 'added', '0')
end
return { 'reset' }
