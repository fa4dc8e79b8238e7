-- Taking work back from workers that have gone silent. Follows _prelude.lua.

-- Move the picture and its words to where a dead letter keeps them.
local function bury_picture(letter, id, index)
  local from, to = P .. 'blob:' .. id .. ':', P .. 'blob:dead-' .. letter .. ':'
  if redis.call('EXISTS', from .. index, from .. 'words') == 2 then
    redis.call('RENAME', from .. index, to .. index)
    redis.call('COPY', from .. 'words', to .. 'words', 'REPLACE')
    redis.call('PEXPIRE', to .. index, LETTER_MS)
    redis.call('PEXPIRE', to .. 'words', LETTER_MS)
  end
end

local function drop_oldest_letter()
  local oldest = redis.call('XRANGE', P .. 'dead', '-', '+', 'COUNT', 1)[1]
  local about = fields(oldest)
  local blobs = P .. 'blob:dead-' .. oldest[1] .. ':'
  redis.call('UNLINK', blobs .. about.i, blobs .. 'words')
  redis.call('XDEL', P .. 'dead', oldest[1])
end

-- Give a picture up: an error in its place, and a dead letter. Returns the letter for burials.
local function give_up(id, index, deliveries, worker)
  local reason = deliveries .. LOST_REASON
  local fault = cjson.encode({
    error = { code = 'worker_lost', message = reason, retryable = true },
  })
  if put_results(id, index, { fault }) == 0 then return nil end
  redis.call('HSET', P .. 'job:' .. id, 'lost', 1)
  count('dead')
  while redis.call('XLEN', P .. 'dead') >= MOST_LETTERS do drop_oldest_letter() end
  local request = redis.call('HGET', P .. 'job:' .. id, 'req')
  local letter = redis.call('XADD', P .. 'dead', '*', 'j', id, 'i', index, 'k', deliveries,
    'w', worker, 'req', request, 'why', reason)
  redis.call('PEXPIRE', P .. 'dead', LETTER_MS)
  bury_picture(letter, id, index)
  end_when_complete(id)
  return { letter, id, index }
end

-- Work whose worker went silent. What had been loaded comes again picture by picture, so that a
-- picture that kills its workers stands alone. Returns a burial or nil.
local function redeliver(stream, entry, work, worker)
  local id, first, size = work.j, tonumber(work.i), tonumber(work.n)
  local loaded = unload(id, entry)
  local deliveries = tonumber(work.k) + (loaded and 1 or 0)
  if not is_open(id) then return nil end
  if is_abandoned(id) then
    end_unwanted(id)
    return nil
  end
  if loaded and size == 1 and deliveries >= MAX_DELIVERIES then
    return give_up(id, first, deliveries, worker)
  end
  count('redelivered')
  if not loaded then
    add_work(AGAIN, id, first, size, deliveries)
    return nil
  end
  for index = first, first + size - 1 do
    if redis.call('HEXISTS', P .. 'job:' .. id, 'p' .. index) == 0 then
      add_work(AGAIN, id, index, 1, deliveries)
    end
  end
  return nil
end

-- Leases that have run out and jobs whose deadline has passed. Returns the burials.
local function reap()
  local burials = {}
  for _, stream in ipairs(STREAMS) do
    local lapsed = redis.pcall('XPENDING', stream, GROUP, 'IDLE', LEASE_MS, '-', '+', 64)
    for _, held in ipairs(lapsed.err and {} or lapsed) do
      local entry = redis.call('XRANGE', stream, held[1], held[1])[1]
      finish_entry(stream, held[1])
      local burial = entry and redeliver(stream, held[1], fields(entry), held[2])
      if burial then burials[#burials + 1] = burial end
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'open', '-inf', now(), 'LIMIT', 0, 64)) do
    if not is_open(id) then
      redis.call('ZREM', P .. 'open', id)
    elseif has_loaded(id) then
      redis.call('ZADD', P .. 'open', now() + LEASE_MS, id)
    else
      end_late(id)
    end
  end
  return burials
end
