// What the shop has. The drawings are a few shapes each, on a 120 x 120 canvas.

export const products = [
  {
    id: 'mug', name: 'Stoneware mug', price: 18, tint: '#e8d9c5', words: 'cup coffee tea drink clay',
    text: 'Thrown by hand, glazed inside only. Keeps its warmth for as long as you read.',
    art: '<rect x="34" y="42" width="46" height="48" rx="9" fill="#b5653a"/><rect x="34" y="42" width="46" height="13" rx="6" fill="#8e4a27"/><path d="M80 54h7a11 11 0 0 1 0 22h-7" fill="none" stroke="#b5653a" stroke-width="7"/><path d="M49 32c0-7 6-7 6-14M62 32c0-7 6-7 6-14" stroke="#fff" stroke-width="3" fill="none" stroke-linecap="round"/>',
  },
  {
    id: 'lamp', name: 'Reading lamp', price: 129, tint: '#d7e3dc', words: 'light desk brass',
    text: 'A brass arm that stays where you put it, and a shade that lights the page only.',
    art: '<path d="M44 24h34l12 30H32z" fill="#1f3a34"/><path d="M61 54v40" stroke="#c79a4b" stroke-width="5"/><rect x="42" y="92" width="38" height="7" rx="3.5" fill="#c79a4b"/><path d="M36 54h50l10 24H26z" fill="#ffe9a8" opacity=".55"/>',
  },
  {
    id: 'kettle', name: 'Pour-over kettle', price: 84, tint: '#dfe1ea', words: 'coffee tea steel',
    text: 'A spout as thin as a pencil. Steel, no plastic that the water could touch.',
    art: '<path d="M40 52h40l8 42H32z" fill="#5b6478"/><rect x="46" y="42" width="28" height="10" rx="4" fill="#3d4557"/><circle cx="60" cy="38" r="5" fill="#c79a4b"/><path d="M34 84C20 80 24 58 14 54" stroke="#5b6478" stroke-width="5" fill="none" stroke-linecap="round"/><path d="M82 54c20-2 22 26 5 30" stroke="#3d4557" stroke-width="6" fill="none"/>',
  },
  {
    id: 'bowl', name: 'Salt-glaze bowl', price: 42, tint: '#e9dfe6', words: 'clay dish salad kitchen',
    text: 'Wide enough for a salad for two. Fired with salt, so that no two are alike.',
    art: '<path d="M22 56h76c0 24-16 38-38 38S22 80 22 56z" fill="#7b4a63"/><ellipse cx="60" cy="56" rx="38" ry="9" fill="#5e354a"/><rect x="48" y="92" width="24" height="6" rx="3" fill="#5e354a"/><path d="M34 70c8 10 16 14 26 14" stroke="#c08fa8" stroke-width="3" fill="none" stroke-linecap="round"/>',
  },
  {
    id: 'chair', name: 'Ash chair', price: 240, tint: '#ece5d3', words: 'seat wood furniture',
    text: 'Steam-bent ash, a woven seat. Holds a person, or all the clothes of one.',
    art: '<path d="M40 22v76M80 60v38M40 60h42M40 24c14-6 22 2 24 34" stroke="#a87b42" stroke-width="6" fill="none" stroke-linecap="round"/><rect x="36" y="56" width="50" height="9" rx="4" fill="#d7b07a"/>',
  },
  {
    id: 'clock', name: 'Quiet clock', price: 66, tint: '#d9e6ea', words: 'time wall',
    text: 'It sweeps and does not tick. For rooms in which somebody sleeps.',
    art: '<circle cx="60" cy="60" r="36" fill="#2f5d6b"/><circle cx="60" cy="60" r="29" fill="#f7f4ec"/><path d="M60 40v20l13 9" stroke="#2f5d6b" stroke-width="4" fill="none" stroke-linecap="round"/><circle cx="60" cy="60" r="3.5" fill="#c2572f"/>',
  },
  {
    id: 'plant', name: 'Rubber plant', price: 29, tint: '#dfe9d6', words: 'green leaf pot',
    text: 'Forgives everything. In a pot of our own clay, with a saucer.',
    art: '<path d="M44 74h32l-5 26H49z" fill="#b5653a"/><path d="M60 74V34" stroke="#3f6b3f" stroke-width="4"/><path d="M60 60c-22 0-26-14-26-22 18 0 26 8 26 22zM60 50c20 0 25-12 25-22-17 0-25 8-25 22zM60 40c-8-6-8-16-2-24 8 6 8 16 2 24z" fill="#4f8a4f"/>',
  },
  {
    id: 'notebook', name: 'Linen notebook', price: 16, tint: '#e6e0f0', words: 'paper write book',
    text: 'Opens flat, 160 pages, paper that ink does not bleed through.',
    art: '<rect x="34" y="24" width="52" height="72" rx="5" fill="#51467c"/><rect x="34" y="24" width="10" height="72" rx="4" fill="#3b325f"/><rect x="54" y="40" width="22" height="12" rx="2" fill="#e9e4f5"/><path d="M70 24v78" stroke="#c2572f" stroke-width="3"/>',
  },
];

export const byId = Object.fromEntries(products.map(product => [product.id, product]));

export function find(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return products.filter(p => words.every(w => `${p.name} ${p.words} ${p.text}`.toLowerCase().includes(w)));
}
