-- Trims the stream to its length, and completes the head of a journal that version 1 wrote.
--
-- ARGV  maximum length, a token in case an epoch begins
-- Returns trimmed, how many entries went | newer, its version

local head = readHead()
if newer(head) then return newer(head) end
if not head.number then return { 'trimmed', 0 } end
mayWrite()
local dropped = trim(head, tonumber(ARGV[1]))
-- Version 1 trims too, and anybody may delete the first entries.
head.first_number = nil
redis.call('HSET', headKey, unpack(facts(head, ARGV[2])))
return { 'trimmed', dropped }
