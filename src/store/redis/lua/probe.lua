-- Fails while this chain's moves cannot be made: because writes are refused, or one of the commands that moves need.

-- What is tried before Redis 7 leaves a head where there was none.
local isNew = not redis.acl_check_cmd and redis.call('EXISTS', headKey) == 0
mayWrite()
if isNew then redis.pcall('DEL', headKey) end
redis.call('SET', KEYS[7], '1', 'PX', '1000')
return { 'answered' }
