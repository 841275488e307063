-- Moves the finalized head to a block at or below the head. It never moves down: blocks that have left the window could not
-- be retracted from a lower one, and would be written twice. Two ingestors may have nodes that disagree on what is final.
--
-- ARGV  filter, expected number, hash, part, digest, final number, final hash, retention
-- Returns finalized | conflict [number, hash, part, digest] | filter, its fingerprint | newer, its version

local number, hash = tonumber(ARGV[6]), ARGV[7]
local head = readHead()
local wrong = compare(head, ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if wrong then return wrong end
if head.final_number and number <= tonumber(head.final_number) then return { 'finalized' } end
local known = recordAt(number)
local reachable = number < head.number or (number == head.number and head.part == 0)
if not reachable or (known and known.hash ~= hash) then return conflict(head) end

mayWrite()
redis.call('ZREMRANGEBYSCORE', windowKey, '-inf', text(number))
trim(head, ARGV[8])
local fields = { 'final_number', text(number), 'final_hash', hash, 'paused', head.paused }
if not head.first_number then
  fields[#fields + 1] = 'first_number'
  fields[#fields + 1] = text(firstNumber(head))
end
redis.call('HSET', headKey, unpack(fields))
return { 'finalized' }
