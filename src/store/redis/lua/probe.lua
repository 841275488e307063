-- Fails while this chain's moves would fail: because writes are refused, or a command that moves need.

-- Before Redis 7, `mayWrite` creates a head if there is none.
local isNew = not redis.acl_check_cmd and redis.call('EXISTS', headKey) == 0
mayWrite()
if isNew then redis.pcall('DEL', headKey) end
redis.call('SET', KEYS[7], '1', 'PX', '1000')
return { 'answered' }
