-- Lease work to a worker. ARGV: worker, most pictures, which lane comes first (1 or 2).
-- Returns {leases, burials, cursors, lane}: a lease is {stream, entry, job, first, size,
-- deliveries, milliseconds waited, milliseconds left}; cursors say where each stream ends, to wait
-- there when nothing was found; lane comes first next time.
local worker, room, turn = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
for _, stream in ipairs(STREAMS) do need_group(stream) end
local burials = reap()

local function last_delivered(stream)
  local group = redis.call('XINFO', 'GROUPS', stream)[1]
  for at = 1, #group, 2 do
    if group[at] == 'last-delivered-id' then return group[at + 1] end
  end
end

-- Looks at what comes next, since what has been read cannot be put back.
local function next_size(stream)
  local entry = redis.call('XRANGE', stream, '(' .. last_delivered(stream), '+', 'COUNT', 1)[1]
  return entry and tonumber(fields(entry).n)
end

-- Work that is still wanted, or nil.
local function checked(stream, entry)
  local work = fields(entry)
  local id, first, size = work.j, tonumber(work.i), tonumber(work.n)
  if is_open(id) and is_late(id) then
    end_late(id)
  elseif is_open(id) and is_abandoned(id) then
    end_unwanted(id)
  elseif is_open(id) and not has_all_results(id, first, size) then
    local known = redis.call('HMGET', P .. 'job:' .. id, 'at', 'd')
    return { stream, entry[1], id, first, size, tonumber(work.k) + 1,
      now() - known[1], known[2] - now() }
  end
  finish_entry(stream, entry[1])
  return nil
end

local leases = {}

-- Whether the next work of a stream was read, be it that nobody wants it any more.
local function read(stream)
  local size = next_size(stream)
  if not size or (#leases > 0 and size > room) then return false end
  local reply = redis.call('XREADGROUP', 'GROUP', GROUP, worker, 'COUNT', 1, 'STREAMS', stream, '>')
  local lease = checked(stream, reply[1][2][1])
  if lease then
    leases[#leases + 1] = lease
    room = room - lease[5]
  end
  return true
end

-- What comes again goes first; nothing overtakes it.
while (#leases == 0 or room > 0) and read(AGAIN) do end
local overtaken = next_size(AGAIN) ~= nil
while (#leases == 0 or room > 0) and not overtaken do
  local other = 3 - turn
  if read(STREAMS[1 + turn]) then
    turn = other
  elseif not read(STREAMS[1 + other]) then
    break
  end
end

local cursors = {}
if #leases == 0 then
  for index, stream in ipairs(STREAMS) do
    local about = redis.call('XINFO', 'STREAM', stream)
    for at = 1, #about, 2 do
      if about[at] == 'last-generated-id' then cursors[index] = about[at + 1] end
    end
  end
end
return { leases, burials, cursors, turn }
