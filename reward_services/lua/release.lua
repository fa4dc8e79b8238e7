-- Hand back leases that were not loaded. ARGV: stream and entry of each.
for at = 1, #ARGV, 2 do
  local stream, entry = ARGV[at], ARGV[at + 1]
  local found = redis.call('XRANGE', stream, entry, entry)[1]
  if found and is_held(stream, entry) then
    local work = fields(found)
    finish_entry(stream, entry)
    if is_open(work.j) then
      unload(work.j, entry)
      add_work(AGAIN, work.j, work.i, work.n, work.k)
    end
  end
end
return 1
