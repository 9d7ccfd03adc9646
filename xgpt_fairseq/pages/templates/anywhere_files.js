// Parts of the captioner in files beside the page: `packed` of anywhere.js.
async function packed(name) {
  const file = `${name}.packed`;
  let response;
  try {
    response = await fetch(`${file}?${document.body.dataset.version}`);
  } catch {
    throw new Error(`${file} did not come: is the server there?`);
  }
  if (!response.ok) throw new Error(`${file} did not come: the server says ${response.status}`);
  return response.arrayBuffer();
}
