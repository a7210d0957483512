// Draws what the server sends twice a second.

const colours = { view: '#4f8fd6', product: '#5ad1a5', click: '#6c7a89', search: '#c58af9', cart: '#f2b84b', checkout: '#ef7d57', form: '#e4577f' };
const names = { view: 'pages', product: 'products', click: 'clicks', search: 'searches', cart: 'cart', checkout: 'checkout', form: 'forms' };
const stages = { view: 'looked around', product: 'looked at a product', cart: 'put it into the cart', checkout: 'went to the checkout', order: 'ordered' };
const find = id => document.getElementById(id);
const escape = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : '–');
let last;

find('legend').innerHTML = Object.entries(names).map(([k, n]) => `<span><i style="background:${colours[k]}"></i>${n}</span>`).join('');

function plot(seconds) {
  const canvas = find('plot');
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const c = canvas.getContext('2d');
  c.scale(scale, scale);
  const kinds = Object.keys(colours);
  const count = seconds.view.length;
  const sums = Array.from({ length: count }, (_, i) => kinds.reduce((sum, k) => sum + seconds[k][i], 0));
  const top = Math.max(5, Math.ceil(Math.max(...sums) / 5) * 5);
  const [left, bottom] = [34, 20];
  const y = value => (height - bottom) * (1 - value / top) + 4;
  c.font = '11px sans-serif';
  c.textAlign = 'right';
  for (const part of [0, 0.5, 1]) {
    c.fillStyle = '#263240';
    c.fillRect(left, y(top * part), width - left, 1);
    c.fillStyle = '#8a9bab';
    c.fillText(Number((top * part).toFixed(1)), left - 7, y(top * part) + 4);
  }
  const step = (width - left) / count;
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (const kind of kinds) {
      const value = seconds[kind][i];
      if (!value) continue;
      c.fillStyle = colours[kind];
      c.fillRect(left + i * step, y(sum + value), Math.max(1, step - 1.5), y(sum) - y(sum + value));
      sum += value;
    }
  }
  c.fillStyle = '#8a9bab';
  for (const ago of [60, 45, 30, 15]) {
    c.textAlign = ago === 60 ? 'left' : 'center';
    c.fillText(`${ago} s ago`, left + (count - ago) * step, height - 3);
  }
  c.textAlign = 'right';
  c.fillText('now', width, height - 3);
}

function rows(list, none) {
  return list.length ? list.join('') : `<p class="quiet">${none}</p>`;
}

function draw(figures) {
  last = figures;
  const set = (id, value) => (find(id).textContent = value);
  set('here', figures.here);
  set('per-minute', figures.per_minute);
  set('searches', figures.totals.search);
  set('carts', figures.totals.cart);
  set('orders', figures.totals.order);
  const [first] = figures.funnel[0].slice(1);
  set('conversion', percent(figures.funnel.at(-1)[1], first));
  plot(figures.per_second);
  find('funnel').innerHTML = figures.funnel.map(([stage, count], i) => {
    const before = i ? figures.funnel[i - 1][1] : 0;
    const lost = i && before > count ? `<p>${percent(before - count, before)} went no further</p>` : '';
    return `${lost}<div class="row" data-stage="${stage}" style="--share:${first ? (100 * count) / first : 0}%"><span>${stages[stage]}</span><b>${count}</b></div>`;
  }).join('');
  const most = Math.max(1, ...figures.products.map(p => p.looked));
  find('products').innerHTML = rows(figures.products.map(p => `<div class="row" style="--share:${(100 * p.looked) / most}%"><span>${escape(p.name)}</span><span><b>${p.looked}</b> <em>· ${p.carted}</em></span></div>`), 'nobody has looked at one yet');
  const asked = Math.max(1, ...figures.searches.map(s => s.count));
  find('queries').innerHTML = rows(figures.searches.map(s => `<div class="row ${s.found ? '' : 'none'}" style="--share:${(100 * s.count) / asked}%"><span>${escape(s.query)}</span><span><b>${s.count}</b> <em>· ${s.found ? `found ${s.found}` : 'found nothing'}</em></span></div>`), 'nobody has searched yet');
  find('latest').innerHTML = figures.latest.map(e => `<li><code>${escape(e.session)}</code><b style="color:${colours[e.type] ?? '#8a9bab'}">${escape(e.type)}</b><span>${escape(e.what)}</span></li>`).join('');
}

const source = new EventSource('live');
const state = (on, text) => {
  find('state').className = on ? 'on' : '';
  find('state').querySelector('b').textContent = text;
};
source.onmessage = message => {
  const figures = JSON.parse(message.data);
  state(true, `${figures.sessions} sessions in an hour · ${new Date(figures.at_ms).toLocaleTimeString()}`);
  draw(figures);
};
source.onerror = () => state(false, 'no answer: trying again');
addEventListener('resize', () => last && draw(last));
