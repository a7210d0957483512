// The shop: a page drawn from the part of the address behind the #, and what is tracked of it.

import { byId, find, products } from './products.js';
import { Tracker } from './track.js';

const main = document.getElementById('main');
const cart = new Map(); // in memory: no storage is touched
const tracker = new Tracker(() => path().replace(/[^a-z0-9/-]/g, '').slice(0, 80));
window.activity = tracker;

const path = () => location.hash.slice(1).split('?')[0] || '/';
const euro = amount => `€ ${amount.toFixed(2)}`;
const escape = text => text.replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
const picture = p => `<div class="art" style="background:${p.tint}"><svg viewBox="0 0 120 120">${p.art}</svg></div>`;

function grid(list) {
  return `<div class="grid">${list.map(p => `
    <a class="card" href="#/product/${p.id}" data-track="card-${p.id}">${picture(p)}
      <h3>${p.name}</h3><span class="price">${euro(p.price)}</span></a>`).join('')}</div>`;
}

const pages = {
  home() {
    return `<section class="hero"><h1>Things for quiet rooms.</h1>
      <p>Eight of them. Made slowly, by people with names, to be used every day.</p></section>${grid(products)}`;
  },
  product(id) {
    const p = byId[id];
    if (!p) return pages.lost();
    return `<article class="product">${picture(p)}<div><a class="back" href="#/" data-track="back">← All things</a>
      <h1>${p.name}</h1><p>${p.text}</p><p class="price big">${euro(p.price)}</p>
      <button class="primary" id="add" data-product="${p.id}" data-track="add-to-cart">Put it into the cart</button>
      <a class="then" href="#/cart" data-track="go-to-cart">To the cart →</a></div></article>`;
  },
  search() {
    const query = new URLSearchParams(location.hash.split('?')[1]).get('q') ?? '';
    const found = find(query);
    const none = '<p class="none">Nothing here by that name. A lamp, perhaps?</p>';
    return `<section><h2>${found.length} for “${escape(query)}”</h2>${found.length ? grid(found) : none}</section>`;
  },
  cart() {
    if (!cart.size) return '<section><h2>Your cart is empty.</h2><a href="#/" data-track="back">← All things</a></section>';
    const rows = [...cart].map(([id, n]) => `<tr><td>${picture(byId[id])}</td><td>${byId[id].name}</td>
      <td>${n} ×</td><td>${euro(byId[id].price * n)}</td></tr>`).join('');
    return `<section><h2>Your cart</h2><table>${rows}<tr class="sum"><td></td><td>Together</td><td></td>
      <td>${euro(total())}</td></tr></table><a class="button primary" id="to-checkout" href="#/checkout"
      data-track="to-checkout">Check out</a></section>`;
  },
  checkout() {
    if (!cart.size) return pages.cart();
    return `<section><h2>Where shall it go?</h2><form class="order" data-form="order">
      <label>Name<input name="name" required autocomplete="off"></label>
      <label>E-mail<input name="email" type="email" required autocomplete="off"></label>
      <label>Address<textarea name="address" rows="3" required></textarea></label>
      <label>A word to us<input name="note" autocomplete="off"></label>
      <button class="primary" data-track="place-order">Place the order, ${euro(total())}</button></form></section>`;
  },
  thanks: () => '<section class="hero"><h1>Thank you.</h1><p>It will not arrive: this shop sells nothing.</p></section>',
  lost: () => '<section><h2>There is no such page.</h2></section>',
};

function total() {
  return [...cart].reduce((sum, [id, n]) => sum + byId[id].price * n, 0);
}

function show() {
  const [, name, argument] = path().split('/');
  const page = name === '' ? 'home' : name in pages ? name : 'lost';
  main.innerHTML = pages[page](argument);
  main.dataset.page = page;
  document.getElementById('cart-count').textContent = [...cart.values()].reduce((a, b) => a + b, 0);
  scrollTo(0, 0);
}

function report() {
  tracker.track('view');
  const [, name, argument] = path().split('/');
  if (name === 'product' && byId[argument]) tracker.track('product', { product: argument });
  if (name === 'checkout' && cart.size) tracker.track('checkout');
}

addEventListener('hashchange', () => {
  show();
  report();
});

document.addEventListener('click', event => {
  const target = event.target.closest('[data-track]');
  if (!target) return;
  tracker.track('click', { target: target.dataset.track });
  if (target.id === 'add') {
    const product = target.dataset.product;
    cart.set(product, (cart.get(product) ?? 0) + 1);
    tracker.track('cart', { product, quantity: 1 });
    target.textContent = 'In the cart';
    document.getElementById('cart-count').textContent = [...cart.values()].reduce((a, b) => a + b, 0);
  }
});

document.addEventListener('submit', event => {
  event.preventDefault();
  const form = event.target;
  if (form.id === 'search') {
    const query = form.elements.query.value.trim();
    if (!query) return;
    tracker.track('search', { query, results: find(query).length });
    location.hash = `#/search?q=${encodeURIComponent(query)}`;
    return;
  }
  // Which form, and how many fields: never what was written into them.
  const filled = [...new FormData(form).values()].filter(value => value !== '').length;
  tracker.track('form', { form: form.dataset.form, fields: filled });
  if (form.dataset.form === 'order') {
    cart.clear();
    location.hash = '#/thanks';
  } else {
    form.querySelector('output').textContent = 'Thank you.';
    form.elements.email.value = '';
  }
});

const question = document.getElementById('consent');
for (const [id, granted] of [['accept', true], ['decline', false]]) {
  document.getElementById(id).addEventListener('click', async () => {
    await tracker.decide(granted);
    question.hidden = true;
    document.body.dataset.consent = granted ? 'granted' : 'declined';
    if (granted) report();
  });
}
document.getElementById('privacy').addEventListener('click', () => (question.hidden = false));

show();
if (await tracker.start()) {
  document.body.dataset.consent = 'granted';
  report();
} else {
  // A no is not remembered either: that would need a cookie.
  question.hidden = Boolean(navigator.globalPrivacyControl);
}
document.body.dataset.ready = 'yes';
