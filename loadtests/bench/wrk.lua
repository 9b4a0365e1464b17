-- What wrk sends, from the arguments after "--": method, bytes of body, requests in one write.
-- Only a pipelined run defines request(): a Lua call for every request would cost the generator its core.
function init(arguments)
  wrk.method = arguments[1]
  local body_bytes, depth = tonumber(arguments[2]), tonumber(arguments[3])
  if body_bytes > 0 then
    wrk.body = string.rep("x", body_bytes)
  end
  if depth > 1 then
    local batch = string.rep(wrk.format(), depth)
    request = function() return batch end
  end
end

-- One line that a program can read.
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "result requests=%d microseconds=%d connect=%d read=%d write=%d status=%d timeout=%d\n",
    summary.requests, summary.duration,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
