// Parts of the captioner in elements of the page: `packed` of anywhere.js. They stay there: a start that failed is tried
// again with the next photo.
async function packed(name) {
  const text = atob(document.getElementById(`data-${name}`).textContent);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}
