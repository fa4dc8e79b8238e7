-- Once in a while: count the admitted pictures anew, forget consumers that are long gone, and
-- entries of ended jobs that no worker came for. Returns how far the count was off.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P .. 'apis', '-inf', now())) do
  redis.call('HDEL', P .. 'rooms', gone)
  redis.call('ZREM', P .. 'apis', gone)
end
local admitted = 0
for _, reserved in ipairs(redis.call('HVALS', P .. 'rooms')) do admitted = admitted + reserved end
for _, id in ipairs(redis.call('ZRANGE', P .. 'open', 0, -1)) do
  if is_open(id) then
    admitted = admitted + redis.call('HGET', P .. 'job:' .. id, 'left')
  else
    redis.call('ZREM', P .. 'open', id)
  end
end
local off = tonumber(redis.call('GET', P .. 'items') or 0) - admitted
if off ~= 0 then redis.call('SET', P .. 'items', admitted, 'PX', SHARED_MS) end

for _, stream in ipairs(STREAMS) do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, GROUP)
  for _, consumer in ipairs(consumers.err and {} or consumers) do
    local about = fields({ '', consumer })
    if about.pending == 0 and about.idle > SHARED_MS then
      redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, about.name)
    end
  end
  -- Only when there are far too many: deleting what was never delivered hides the group's lag.
  if redis.call('XLEN', stream) > 2 * MAX_ITEMS then
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', MAX_ITEMS)) do
      if not is_open(fields(entry).j) and not is_held(stream, entry[1]) then
        redis.call('XDEL', stream, entry[1])
      end
    end
  end
end
return off
