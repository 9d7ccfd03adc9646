// Captions from the server that the page comes from.
const TRIES = 60; // of a server that is busy with photos of other pages, a second apart

async function ask(body, size) {
  for (let tried = 1; ; tried++) {
    let response, answer;
    try {
      response = await fetch(`/caption?beam=${size}`, { method: "POST", body });
      answer = await response.json();
    } catch {
      throw new Error("no answer: has xgpt-caption ended?");
    }
    if (response.ok) return { ...answer, weights: async () => answer.attention };
    if (response.status !== 503 || tried === TRIES) throw new Error(answer.error);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
