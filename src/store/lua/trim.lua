-- Trims the stream to its length.
--
-- ARGV  maximum length
-- Returns how many entries went

local head = readHead()
if not head then return 0 end
return trim(head, tonumber(ARGV[1]))
