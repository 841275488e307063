-- Trims the entries that are no longer needed, sets whether publishing is paused, and completes the head of a journal that
-- version 1 wrote. It runs once a second and writes only what has changed, and a heartbeat every ten seconds.
--
-- ARGV  retention, a token in case an epoch begins, the description of the ingestor's filter (its fingerprint, a space, its content
--       as JSON) or ''
-- Returns trimmed, what `trim` returns | newer, its version

local head = readHead()
if newer(head) then return newer(head) end
if not head.number then return { 'trimmed', 0, '', 0, 0, '' } end
local paused, first = head.paused, head.first_number
local outcome = trim(head, ARGV[1])
-- Version 1 trims too, and any client may delete the first entries.
head.first_number = nil
local fields = facts(head, ARGV[2])
if #fields == 2 and fields[2] == first then fields = {} end
if head.paused ~= paused then
  fields[#fields + 1] = 'paused'
  fields[#fields + 1] = head.paused
end
if ARGV[3] ~= '' and ARGV[3] ~= head.filter_content and string.sub(ARGV[3], 1, #head.filter + 1) == head.filter .. ' ' then
  fields[#fields + 1] = 'filter_content'
  fields[#fields + 1] = ARGV[3]
end
if #fields > 0 then
  mayWrite()
  redis.call('HSET', headKey, unpack(fields))
end
-- The heartbeat of the ingestor. When the memory is full it cannot be written, which is no failure.
local now = redis.call('TIME')[1]
if math.abs(tonumber(now) - (tonumber(head.alive) or 0)) >= 10 then redis.pcall('HSET', headKey, 'alive', now) end
return { 'trimmed', unpack(outcome) }
