-- A worker lives. ARGV: name, status as JSON, identity as JSON, milliseconds after which a worker
-- counts as gone, milliseconds to remember what is served, that as JSON. Returns name and status
-- of a living worker with another identity, or nil.

local oldest = now() - ARGV[4]
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P .. 'seen', '-inf', oldest)) do
  redis.call('ZREM', P .. 'seen', gone)
  redis.call('HDEL', P .. 'workers', gone)
  redis.call('HDEL', P .. 'identities', gone)
end
local identities = redis.call('HGETALL', P .. 'identities')
for at = 1, #identities, 2 do
  if identities[at] ~= ARGV[1] and identities[at + 1] ~= ARGV[3] then
    return { identities[at], identities[at + 1] }
  end
end
redis.call('ZADD', P .. 'seen', now(), ARGV[1])
redis.call('HSET', P .. 'workers', ARGV[1], ARGV[2])
redis.call('HSET', P .. 'identities', ARGV[1], ARGV[3])
redis.call('SET', P .. 'info', ARGV[6], 'PX', ARGV[5])
for _, key in ipairs({ 'seen', 'workers', 'identities' }) do
  redis.call('PEXPIRE', P .. key, ARGV[5])
end
return nil
