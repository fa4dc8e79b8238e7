-- The living workers. ARGV: milliseconds after which a worker counts as gone. Returns pairs of
-- status and milliseconds since it was seen.
local found = {}
local seen = redis.call('ZRANGE', P .. 'seen', 0, -1, 'WITHSCORES')
for at = 1, #seen, 2 do
  local age = now() - seen[at + 1]
  if age < tonumber(ARGV[1]) then
    found[#found + 1] = { redis.call('HGET', P .. 'workers', seen[at]), age }
  end
end
return found
