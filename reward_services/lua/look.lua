-- An API process lives, and asks after the jobs it waits for. ARGV: API process, pictures that it
-- has reserved and not submitted, then the jobs. Returns for each 0 unknown, 1 open, 2 ended.
local api, reserved = ARGV[1], tonumber(ARGV[2])
redis.call('ZADD', P .. 'apis', now() + API_MS, api)
-- A call whose answer was lost may have left room reserved that nobody will use.
local surplus = tonumber(redis.call('HGET', P .. 'rooms', api) or 0) - reserved
if surplus > 0 then
  redis.call('HINCRBY', P .. 'rooms', api, -surplus)
  redis.call('DECRBY', P .. 'items', surplus)
end
keep_shared(SHARED_MS)
local found = {}
for at = 3, #ARGV do
  local known = redis.call('HMGET', P .. 'job:' .. ARGV[at], 'left', 'end')
  found[#found + 1] = known[2] and 2 or known[1] and 1 or 0
  if known[1] then add_waiter(ARGV[at], api) end
end
return found
