-- A worker has ended in good order. ARGV: name. A consumer that still holds work stays until that
-- has come again, as its leases would go with it.
redis.call('ZREM', P .. 'seen', ARGV[1])
redis.call('HDEL', P .. 'workers', ARGV[1])
redis.call('HDEL', P .. 'identities', ARGV[1])
for _, stream in ipairs(STREAMS) do
  local held = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1, ARGV[1])
  if not held.err and #held == 0 then
    redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, ARGV[1])
  end
end
return 1
