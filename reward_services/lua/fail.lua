-- End the job of a lease with an error. ARGV: stream, entry, job, error as JSON. Returns how many
-- pictures the job has if it ended, else 0.
if not finish_entry(ARGV[1], ARGV[2]) or not is_open(ARGV[3]) then return 0 end
local size = tonumber(redis.call('HGET', P .. 'job:' .. ARGV[3], 'n'))
end_job(ARGV[3], ARGV[4])
return size
