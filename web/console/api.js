// Talking to the daemon: requests, and the stream of all that changes.

const TOKEN = "vtorc-token";

function headers(extra) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { ...extra, Authorization: `Bearer ${token}` } : { ...extra };
}

function askForToken() {
  const token = window.prompt("This vtorc wants a token (HTTPAuthPassword of its configuration):");
  if (token) sessionStorage.setItem(TOKEN, token);
  return Boolean(token);
}

async function request(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers(options.headers) });
  if (response.status === 401 && askForToken()) return request(path, options);
  return response;
}

export async function get(path) {
  const response = await request(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

// Answers the body; throws the server's own words where it refuses.
export async function post(path, body) {
  const response = await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error([answer.message, answer.text, answer.details].filter(Boolean).join(" — "));
  return answer;
}

// Follows the events for ever; calls back with (kind, data), and with the connection's state.
export async function follow(onEvent, onState) {
  for (;;) {
    try {
      const response = await request("/api/v1/events");
      if (!response.ok) throw new Error(`events: ${response.status}`);
      onState(true);
      await read(response.body.getReader(), onEvent);
    } catch (error) {
      console.warn(error);
    }
    onState(false);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function read(reader, onEvent) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const kind = /^event: (.*)$/m.exec(block);
      const data = /^data: (.*)$/m.exec(block);
      if (kind && data) onEvent(kind[1], JSON.parse(data[1]));
    }
  }
}
