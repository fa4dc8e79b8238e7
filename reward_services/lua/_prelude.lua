-- What every script shares. KEYS[1] is the prefix of all keys of one queue, rw:{<reward>}: ; the
-- braces keep them in one slot of a cluster. Constants in capitals are written above this text.
--
-- q:again q:interactive q:bulk  streams of work: j job, i first picture, n pictures, k deliveries
-- job:<id>       hash, see submit.lua; p<index> one result, s<first>:<n> who gave it and when
-- blob:<id>:…    one key per picture, and one with the words of all
-- open           sorted set of the unfinished jobs by their deadline
-- items          pictures admitted and not yet finished
-- rooms, apis    hash of pictures reserved and not yet submitted, by API process; sorted set of
--                those processes by the time when they count as gone
-- bell:<api>     list of finished jobs that an API process waits for
-- counts         hash: items, seconds and last of the throughput; redelivered; dead
-- dead           stream of dead letters
--
-- All times are milliseconds of this server's clock.
local P = KEYS[1]
local AGAIN = P .. 'q:again'
local STREAMS = { AGAIN, P .. 'q:interactive', P .. 'q:bulk' }

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Let a key live for at least so long.
local function keep(key, ms)
  local left = redis.call('PTTL', key)
  if left ~= -2 and left < ms then redis.call('PEXPIRE', key, ms) end
end

local function keep_shared(ms)
  for _, key in ipairs({ 'open', 'items', 'rooms', 'apis', 'counts' }) do keep(P .. key, ms) end
end

local function count(name)
  redis.call('HINCRBY', P .. 'counts', name, 1)
  keep(P .. 'counts', SHARED_MS)
end

local function fields(entry)
  local named = {}
  for at = 1, #entry[2], 2 do named[entry[2][at]] = entry[2][at + 1] end
  return named
end

local function add_work(stream, id, first, size, deliveries)
  redis.call('XADD', stream, '*', 'j', id, 'i', first, 'n', size, 'k', deliveries)
  keep(stream, SHARED_MS)
end

local function unlink_pictures(id, first, size)
  for index = first, first + size - 1 do
    redis.call('UNLINK', P .. 'blob:' .. id .. ':' .. index)
  end
end

local function is_open(id)
  local known = redis.call('HMGET', P .. 'job:' .. id, 'left', 'end')
  return known[1] and not known[2]
end

-- Nobody needs the job: neither a caller nor, where its result is kept, one to come.
local function is_abandoned(id)
  local known = redis.call('HMGET', P .. 'job:' .. id, 'w', 'keep')
  return (known[1] or '') == '' and known[2] ~= '1'
end

local function has_loaded(id)
  return tonumber(redis.call('HGET', P .. 'job:' .. id, 'b') or 0) > 0
end

local function add_waiter(id, api)
  local waiters = redis.call('HGET', P .. 'job:' .. id, 'w') or ''
  if not string.find(waiters, api, 1, true) then
    redis.call('HSET', P .. 'job:' .. id, 'w', waiters .. api .. ' ')
  end
end

local function remove_waiter(id, api)
  local waiters = redis.call('HGET', P .. 'job:' .. id, 'w') or ''
  local at, to = string.find(waiters, api .. ' ', 1, true)
  if at then
    redis.call('HSET', P .. 'job:' .. id, 'w', string.sub(waiters, 1, at - 1)
      .. string.sub(waiters, to + 1))
  end
end

local function ring(id)
  for api in string.gmatch(redis.call('HGET', P .. 'job:' .. id, 'w') or '', '%S+') do
    redis.call('RPUSH', P .. 'bell:' .. api, id)
    redis.call('PEXPIRE', P .. 'bell:' .. api, FETCH_MS)
  end
end

-- What becomes of an ended job when a caller has left, or none was there.
local function forget_unless_wanted(id)
  local job = P .. 'job:' .. id
  local known = redis.call('HMGET', job, 'w', 'keep')
  if (known[1] or '') == '' then
    if known[2] == '1' then
      redis.call('PEXPIRE', job, RESULT_MS)
    else
      redis.call('DEL', job)
    end
  end
end

-- End an open job. outcome: 'done', or an error as JSON.
local function end_job(id, outcome)
  local job = P .. 'job:' .. id
  local known = redis.call('HMGET', job, 'n', 'left')
  redis.call('HSET', job, 'end', outcome, 'b', 0)
  redis.call('DECRBY', P .. 'items', known[2])
  redis.call('ZREM', P .. 'open', id)
  unlink_pictures(id, 0, known[1])
  redis.call('UNLINK', P .. 'blob:' .. id .. ':words')
  ring(id)
  redis.call('PEXPIRE', job, math.max(RESULT_MS, FETCH_MS))
  forget_unless_wanted(id)
end

local function failure(code, message)
  return cjson.encode({ code = code, message = message })
end

local function end_unwanted(id)
  if is_open(id) and is_abandoned(id) and not has_loaded(id) then
    end_job(id, failure('deadline_exceeded', 'nobody waits for this job any more'))
  end
end

-- What a worker has loaded may still be finished after the deadline.
local function end_late(id)
  if is_open(id) and not has_loaded(id) then
    local known = redis.call('HMGET', P .. 'job:' .. id, 'at', 'd')
    end_job(id, failure('deadline_exceeded', string.format(
      'no worker was free within %g s: try again later', (known[2] - known[1]) / 1000)))
  end
end

local function is_late(id)
  return tonumber(redis.call('HGET', P .. 'job:' .. id, 'd')) <= now()
end

-- Take a result for each picture that has none; how many these were.
local function put_results(id, first, results)
  local job = P .. 'job:' .. id
  local new = 0
  for offset, result in ipairs(results) do
    new = new + redis.call('HSETNX', job, 'p' .. (first + offset - 1), result)
  end
  redis.call('HINCRBY', job, 'left', -new)
  redis.call('DECRBY', P .. 'items', new)
  return new
end

local function has_all_results(id, first, size)
  for index = first, first + size - 1 do
    if redis.call('HEXISTS', P .. 'job:' .. id, 'p' .. index) == 0 then return false end
  end
  return true
end

local function end_when_complete(id)
  if redis.call('HGET', P .. 'job:' .. id, 'left') == '0' then
    end_job(id, 'done')
  else
    end_unwanted(id)
  end
end

-- Whether this stream had a group; makes one that starts with the oldest entry if not. A lost
-- Redis, or FLUSHALL, takes the group away under the workers' feet.
local function has_group(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  return not groups.err and #groups > 0
end

local function need_group(stream)
  if not has_group(stream) then
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
  end
  keep(stream, SHARED_MS)
end

-- The entry of a lease, out of the stream and out of the worker's hands: whether it was there.
local function finish_entry(stream, entry)
  local held = redis.call('XACK', stream, GROUP, entry)
  redis.call('XDEL', stream, entry)
  return held == 1
end

local function is_held(stream, entry)
  local pending = redis.pcall('XPENDING', stream, GROUP, entry, entry, 1)
  return not pending.err and #pending > 0
end

-- Whether the entry had been loaded; it is not any more.
local function unload(id, entry)
  local loaded = redis.call('HDEL', P .. 'job:' .. id, 'b:' .. entry) == 1
  if loaded then redis.call('HINCRBY', P .. 'job:' .. id, 'b', -1) end
  return loaded
end
