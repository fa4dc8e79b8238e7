-- The pictures of a leased job are gone: forget the job, and ring, so that whoever waits submits
-- it again. ARGV: stream, entry, job.
finish_entry(ARGV[1], ARGV[2])
local id = ARGV[3]
if not is_open(id) then return 0 end
local known = redis.call('HMGET', P .. 'job:' .. id, 'n', 'left')
redis.call('DECRBY', P .. 'items', known[2])
redis.call('ZREM', P .. 'open', id)
ring(id)
redis.call('DEL', P .. 'job:' .. id)
unlink_pictures(id, 0, known[1])
redis.call('UNLINK', P .. 'blob:' .. id .. ':words')
return 1
