-- Take room for pictures. ARGV: API process, pictures. Returns {taken, admitted, items, seconds}.
local api, wanted = ARGV[1], tonumber(ARGV[2])
local admitted = tonumber(redis.call('GET', P .. 'items') or 0)
if admitted + wanted > MAX_ITEMS then
  -- Room that a process reserved and took along when it died.
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P .. 'apis', '-inf', now())) do
    admitted = redis.call('DECRBY', P .. 'items', redis.call('HGET', P .. 'rooms', gone) or 0)
    redis.call('HDEL', P .. 'rooms', gone)
    redis.call('ZREM', P .. 'apis', gone)
  end
end
if admitted + wanted > MAX_ITEMS then
  local pace = redis.call('HMGET', P .. 'counts', 'items', 'seconds')
  return { 0, admitted, pace[1] or '0', pace[2] or '0' }
end
redis.call('INCRBY', P .. 'items', wanted)
redis.call('HINCRBY', P .. 'rooms', api, wanted)
redis.call('ZADD', P .. 'apis', now() + API_MS, api)
keep_shared(SHARED_MS)
return { 1, admitted + wanted, '0', '0' }
