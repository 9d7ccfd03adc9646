// Parts of the captioner in elements of the page: `packed` of anywhere.js.
async function packed(name) {
  const element = document.getElementById(`data-${name}`);
  const text = atob(element.textContent);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  element.remove(); // its text is as large again
  return bytes;
}
