-- A caller no longer waits. ARGV: job, API process ('' speaks for all), pictures that it may have
-- written. Returns whether these are not needed any more.
local id, api = ARGV[1], ARGV[2]
local job = P .. 'job:' .. id
if redis.call('EXISTS', job) == 0 then
  unlink_pictures(id, 0, tonumber(ARGV[3]))
  redis.call('UNLINK', P .. 'blob:' .. id .. ':words')
  return 1
end
if api == '' then
  if is_open(id) and not has_loaded(id) then
    end_job(id, failure('deadline_exceeded', 'this job was cancelled'))
    return 1
  end
  return 0
end
remove_waiter(id, api)
if redis.call('HGET', job, 'w') ~= '' or has_loaded(id) then return 0 end
if is_open(id) then
  end_job(id, failure('deadline_exceeded', 'nobody waits for this job any more'))
else
  forget_unless_wanted(id)
end
return 1
