// fairseq's beam search for one image: runtime/xgpt_runtime/search.py says why each step is as it is.

// step(tokens, position, mask, count) → {best, ids, end}, each row by row; → [{tokens, score}], best first.
async function search(step, { beam, lenpen, longest, minLen, eos, symbols }) {
  const found = [];
  let rows = Array.from({ length: beam }, () => ({ tokens: [eos], score: 0, ancestors: [] }));
  for (let position = 0; position <= longest; position++) {
    rows.forEach((row, number) => (row.ancestors = [...row.ancestors, number]));
    const mask = rows.flatMap((row) => row.ancestors.flatMap((own) => rows.map((_, number) => own === number)));
    const count = Math.min(2 * beam + 1, symbols);
    const newest = rows.map((row) => row.tokens.at(-1));
    const { best, ids, end } = await step(newest, position, mask, count);
    const candidates = [];
    rows.slice(0, position ? beam : 1).forEach((row, number) => {
      if (position === longest) {
        candidates.push({ row, token: eos, score: Math.fround(row.score + end[number]) });
        return;
      }
      for (let place = number * count; place < (number + 1) * count; place++) {
        const barred = ids[place] === eos && position < minLen;
        const score = barred ? -Infinity : Math.fround(row.score + best[place]);
        candidates.push({ row, token: ids[place], score });
      }
    });
    candidates.sort((a, b) => (a.score === b.score ? 0 : b.score - a.score)); // stable
    candidates.length = Math.min(candidates.length, 2 * beam);
    const ends = ({ token, score }) => token === eos && score !== -Infinity;
    for (const { row, score } of candidates.slice(0, beam).filter(ends)) {
      if (found.length < beam) found.push({ tokens: row.tokens.slice(1), score: score / (position + 1) ** lenpen });
    }
    if (found.length >= beam || position === longest) break;
    rows = candidates
      .filter((candidate) => !ends(candidate))
      .slice(0, beam)
      .map(({ row, token, score }) => ({ tokens: [...row.tokens, token], score, ancestors: row.ancestors }));
  }
  return found.sort((a, b) => b.score - a.score);
}
