// Requests to the service that this page came from, and to no other.

const STORED_KEY = "reward-service-key";

/** The API key that was typed in, kept by the browser until this tab is closed; "" without one. */
export const apiKey = {
  get: () => sessionStorage.getItem(STORED_KEY) ?? "",
  set: (key) => sessionStorage.setItem(STORED_KEY, key.trim()),
};

/** Why there is no answer: one sentence for the reader, and what the service calls it. */
export class Fault extends Error {
  constructor(message, { code = "", status = 0, retryAfter = "", requestId = "" } = {}) {
    super(message);
    Object.assign(this, { code, status, retryAfter, requestId });
  }
}

/** Like `fetch`, with the API key; anything but a 2xx becomes a `Fault`. */
export async function call(path, options = {}) {
  const headers = new Headers();
  let answer;
  try {
    if (apiKey.get()) headers.set("Authorization", `Bearer ${apiKey.get()}`);
  } catch {
    throw new Fault("The API key has characters that cannot be sent.", { status: 401 });
  }
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The service did not answer. Is it still running?", { code: "unreachable" });
  }
  if (answer.ok) return answer;
  throw await faultOf(answer);
}

async function faultOf(answer) {
  const { status } = answer;
  const retryAfter = answer.headers.get("Retry-After") ?? "";
  try {
    const body = await answer.json();
    const requestId = body.request_id ?? "";
    if (body.code) return new Fault(body.message, { code: body.code, status, retryAfter, requestId });
  } catch {
    // Not the service's own words, such as a proxy's page: the status has to do.
  }
  return new Fault(`The answer was HTTP ${status} ${answer.statusText}`.trim(), { status, retryAfter });
}
