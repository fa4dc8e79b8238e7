-- Finish the pictures of a lease. ARGV: stream, entry, job, first picture, name and value of the
-- field that says who gave the results, then one result per picture. Doing it twice is harmless,
-- and so is doing it late: a picture keeps its first result. Returns how many pictures the job has
-- if it ended, else 0.
local stream, entry, id, first = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
finish_entry(stream, entry)
if not is_open(id) then return 0 end
unload(id, entry)
local job = P .. 'job:' .. id
local results = {}
for at = 7, #ARGV do results[#results + 1] = ARGV[at] end
local new = put_results(id, first, results)
if new > 0 then
  if ARGV[6] ~= '' then redis.call('HSET', job, ARGV[5], ARGV[6]) end
  -- Idle time, between the end of one job and the submission of the next, is no work.
  local pace = redis.call('HMGET', P .. 'counts', 'items', 'seconds', 'last')
  local from = math.max(tonumber(pace[3] or 0), tonumber(redis.call('HGET', job, 'at')))
  local time = now()
  redis.call('HSET', P .. 'counts', 'items', (pace[1] or 0) * DECAY + new,
    'seconds', (pace[2] or 0) * DECAY + (time - from) / 1000, 'last', time)
  keep(P .. 'counts', SHARED_MS)
end
unlink_pictures(id, first, #results)
local size = tonumber(redis.call('HGET', job, 'n'))
end_when_complete(id)
return is_open(id) and 0 or size
