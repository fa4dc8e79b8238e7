-- Queue a job whose pictures have been written, or join one that is known.
-- ARGV: id, API process that waits, pictures, how many of them were reserved, milliseconds to the
-- deadline, whether the result is kept, lane, request id, trace context, whether only to join.
-- Returns 'new', 'joined', 'finished', or 'unknown' where there is nothing to join.
local id, api, size, reserved, timeout = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]),
  tonumber(ARGV[5])
local job = P .. 'job:' .. id
local deadline = now() + timeout
local known = redis.call('HMGET', job, 'left', 'end', 'keep', 'lost', 'd')
local joins = known[1]
  and (not known[2] or (known[2] == 'done' and known[3] == '1' and not known[4]))
if not joins and ARGV[10] == '1' then return 'unknown' end

-- After the loss of its data Redis knows nothing of the reservation.
local moved = math.min(reserved, tonumber(redis.call('HGET', P .. 'rooms', api) or 0))
if moved > 0 then redis.call('HINCRBY', P .. 'rooms', api, -moved) end

if joins then
  redis.call('DECRBY', P .. 'items', moved)
  add_waiter(id, api)
  if known[2] then
    unlink_pictures(id, 0, size)
    redis.call('UNLINK', P .. 'blob:' .. id .. ':words')
    return 'finished'
  end
  if deadline > tonumber(known[5]) then
    redis.call('HSET', job, 'd', deadline)
    redis.call('ZADD', P .. 'open', deadline, id)
    keep(job, timeout + GRACE_MS)
  end
  return 'joined'
end

-- Whoever waits for a failed job of the same id gets the outcome of this one.
local waiters = redis.call('HGET', job, 'w') or ''
redis.call('DEL', job)
-- n pictures, left: of them without result, d deadline, at time of submission, w API processes
-- that wait, b leases that are loaded (b:<entry> which), end outcome, lost pictures given up.
redis.call('HSET', job, 'n', size, 'left', size, 'd', deadline, 'at', now(), 'w', waiters,
  'keep', ARGV[6], 'lane', ARGV[7], 'req', ARGV[8], 'tp', ARGV[9])
add_waiter(id, api)
redis.call('PEXPIRE', job, timeout + GRACE_MS)
redis.call('INCRBY', P .. 'items', size - moved)
redis.call('ZADD', P .. 'open', deadline, id)
add_work(P .. 'q:' .. ARGV[7], id, 0, size, 0)
local life = math.max(SHARED_MS, timeout + GRACE_MS)
keep(P .. 'q:' .. ARGV[7], life)
keep_shared(life)
return 'new'
