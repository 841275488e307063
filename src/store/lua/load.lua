-- The head as field, value, … and the records of the window, lowest first, at one moment.

return { redis.call('HGETALL', headKey), redis.call('ZRANGE', windowKey, 0, -1) }
