// Draws what the server sends twice a second: each series as a line, what would be usual as a band behind it.

const find = id => document.getElementById(id);
const escape = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
const [WIDTH, HEIGHT] = [600, 200];
const GAP_MS = 5000; // where nothing was measured for so long there is no line
const time = ms => new Date(ms).toLocaleTimeString([], { hour12: false });

function amount(value, unit) {
  if (value === null || value === undefined) return '–';
  let [number, prefix] = [value, ''];
  if (unit.startsWith('bytes')) {
    for (const next of ['k', 'M', 'G', 'T']) {
      if (Math.abs(number) < 1000) break;
      number /= 1000;
      prefix = next;
    }
    unit = unit.replace('bytes', `${prefix}B`);
  }
  const digits = Math.abs(number) >= 100 || Number.isInteger(number) ? 0 : 1;
  return `${number.toFixed(digits)} ${unit}`.trim();
}

function chart(series, from, until) {
  const points = series.points;
  const values = points.map(p => p[1]);
  let low = Math.min(...values);
  let high = Math.max(...values);
  // The band belongs into the picture, unless it is so wide that nothing else would be seen.
  const lows = points.map(p => p[2]).filter(v => v !== null);
  const highs = points.map(p => p[3]).filter(v => v !== null);
  const banded = lows.length > 0 && highs.length > 0;
  if (banded) {
    low = Math.min(low, ...lows);
    high = Math.max(high, ...highs);
  } else if (highs.length && highs[0] < 3 * high) high = Math.max(high, highs[0]);
  if (Math.min(...values) >= 0) low = Math.max(0, low);
  if (high - low < Math.abs(high) * 0.02 || high === low) high = low + Math.max(1, Math.abs(high) * 0.1);
  const room = (high - low) * 0.06;
  if (low !== 0) low = Math.min(...values) >= 0 ? Math.max(0, low - room) : low - room;
  high += room;
  const x = at => ((at - from) / (until - from)) * WIDTH;
  const y = value => HEIGHT * (1 - (Math.min(high, Math.max(low, value)) - low) / (high - low));
  const path = (list, gaps) => list.map(([at, v], i) => `${i && !(gaps && at - list[i - 1][0] > GAP_MS) ? 'L' : 'M'}${x(at).toFixed(1)} ${y(v).toFixed(1)}`).join('');
  const parts = [0.25, 0.5, 0.75].map(p => `<path class="grid" d="M0 ${HEIGHT * p}H${WIDTH}"/>`);
  let since = null;
  points.forEach((p, i) => {
    if (p[4] && since === null) since = p[0];
    const over = since !== null && (!p[4] || i === points.length - 1);
    if (over) {
      parts.push(`<rect class="wrong" x="${x(since)}" y="0" width="${Math.max(2, x(p[0]) - x(since))}" height="${HEIGHT}"/>`);
      since = null;
    }
  });
  const band = points.filter(p => p[2] !== null && p[3] !== null);
  if (band.length) {
    const upper = band.map(p => [p[0], p[3]]);
    const lower = band.map(p => [p[0], p[2]]).reverse();
    parts.push(`<path class="band" d="${path(upper)}${path(lower).replace('M', 'L')}Z"/>`);
  } else {
    for (const limit of [points.at(-1)[2], points.at(-1)[3]]) {
      if (limit !== null && limit >= low && limit <= high) parts.push(`<path class="limit" d="M0 ${y(limit)}H${WIDTH}"/>`);
    }
  }
  parts.push(`<path class="value" d="${path(points, true)}"/>`);
  const scale = `<div class="scale"><span>${amount(low, series.unit)} … ${amount(high, series.unit)}</span><span>${Math.round((until - from) / 1000)} s</span></div>`;
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none">${parts.join('')}</svg>${scale}`;
}

function incident(alert) {
  const over = alert.state === 'resolved';
  const lasted = over ? `${((alert.at_ms - alert.opened_ms) / 1000).toFixed(0)} s, over` : 'now';
  return `<li class="${alert.state}" data-series="${escape(alert.series)}"><b>${escape(alert.title)}<em>${time(alert.opened_ms)} · ${lasted}</em></b>
    <span>${escape(alert.reasons.join(', '))}; ${over ? `it was ${amount(alert.worst, alert.unit)}` : `it is ${amount(alert.worst, alert.unit)}`}</span></li>`;
}

function draw(state) {
  find('host').textContent = state.series[0]?.host ?? '';
  const from = state.at_ms - state.plotted_ms;
  find('series').innerHTML = state.series.map(s => `<div class="card ${s.firing ? 'firing' : ''}" data-series="${escape(s.series)}">
    <h2>${escape(s.title)}<b>${amount(s.value, s.unit)}</b></h2><small>${escape(s.series)}${s.ready ? '' : ' · learning what is usual'}</small>${chart(s, from, state.at_ms)}</div>`).join('');
  find('alerts').innerHTML = state.alerts.map(incident).join('') || '<li class="quiet">none in the last hour</li>';
  find('heard').innerHTML = state.webhook.heard.map(h => `<li class="${h.state}"><b>${escape(h.title)}: ${h.state}<em>${time(h.at_ms)}</em></b></li>`).join('') || '<li class="quiet">nothing yet</li>';
}

const source = new EventSource('live');
const say = (on, text) => {
  find('state').className = on ? 'on' : '';
  find('state').querySelector('b').textContent = text;
};
source.onmessage = message => {
  const state = JSON.parse(message.data);
  say(true, time(state.at_ms));
  draw(state);
};
source.onerror = () => say(false, 'no answer: trying again');
find('burst').addEventListener('click', () => fetch('burst', { method: 'POST' }));
