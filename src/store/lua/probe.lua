-- Fails while this chain's moves cannot be made: because writes are refused, or one of the commands that moves need.

mayWrite()
redis.call('SET', KEYS[7], '1', 'PX', '1000')
return { 'answered' }
