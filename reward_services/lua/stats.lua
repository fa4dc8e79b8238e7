-- Counters. Returns {admitted, leased, waiting interactive, waiting bulk, milliseconds that the
-- oldest of these has waited, items, seconds, redelivered, dead}.
local function wanted(entry)
  local work = fields(entry)
  return is_open(work.j) and tonumber(work.n) or 0, work.j
end

local time = now()
local leased, oldest = 0, time
local waiting = { interactive = 0, bulk = 0 }
for _, stream in ipairs(STREAMS) do
  local held = {}
  local pending = redis.pcall('XPENDING', stream, GROUP, '-', '+', 10000)
  for _, one in ipairs(pending.err and {} or pending) do held[one[1]] = true end
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', 10000)) do
    local size, id = wanted(entry)
    if size > 0 and held[entry[1]] then
      leased = leased + size
    elseif size > 0 then
      local known = redis.call('HMGET', P .. 'job:' .. id, 'lane', 'at')
      waiting[known[1]] = waiting[known[1]] + size
      oldest = math.min(oldest, tonumber(known[2]))
    end
  end
end
local counts = redis.call('HMGET', P .. 'counts', 'items', 'seconds', 'redelivered', 'dead')
return { tonumber(redis.call('GET', P .. 'items') or 0), leased, waiting.interactive, waiting.bulk,
  time - oldest, counts[1] or '0', counts[2] or '0', tonumber(counts[3] or 0), tonumber(counts[4] or 0) }
