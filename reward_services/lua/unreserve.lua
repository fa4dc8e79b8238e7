-- Give room back that no job was submitted for. ARGV: API process, pictures.
local reserved = tonumber(redis.call('HGET', P .. 'rooms', ARGV[1]) or 0)
local given = math.max(0, math.min(reserved, tonumber(ARGV[2])))
if given > 0 then
  redis.call('HINCRBY', P .. 'rooms', ARGV[1], -given)
  redis.call('DECRBY', P .. 'items', given)
end
return given
