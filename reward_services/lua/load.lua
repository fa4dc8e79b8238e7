-- A worker has the pictures of a lease and is about to score them. ARGV: stream, entry, job,
-- worker. Returns {request id, trace context}, or nil when the lease is not wanted any more.
local stream, entry, id = ARGV[1], ARGV[2], ARGV[3]
if not is_held(stream, entry) then return nil end
if not is_open(id) or is_late(id) then
  finish_entry(stream, entry)
  if is_open(id) then end_late(id) end
  return nil
end
if redis.call('HSETNX', P .. 'job:' .. id, 'b:' .. entry, 1) == 1 then
  redis.call('HINCRBY', P .. 'job:' .. id, 'b', 1)
end
redis.call('XCLAIM', stream, GROUP, ARGV[4], 0, entry, 'JUSTID')
return redis.call('HMGET', P .. 'job:' .. id, 'req', 'tp')
