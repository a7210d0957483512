"""The looks of a picture, the page that it stands on, and the script for zoom and hover.

The page loads nothing, and runs no script but this one: its policy names the script by its hash. Without
scripts it shows the same, and the browser tells of a mark that is pointed at.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape

from ottla.explore.recording.picture_svg import DEFINITIONS, clean

# Of the texts of a failure so much is shown.
ERROR_MAX, STORY_LINE_MAX, STORY_LINES_MAX = 700, 300, 60

# Colours after Okabe and Ito, which people with any colour vision tell apart, dark ones on light and back.
STYLE = """
:root{color-scheme:light dark;--ink:#1f2430;--faint:#5b6474;--card:#fbfbfd;--edge:#d9dde6;--band:#f1f3f7;
--runs:#dfe5ee;--runs-edge:#8b95a7;--down:#fde2e0;--down-line:#b8453b;--paused:#fff0d2;--paused-line:#a87410;
--fault:#f4e4f0;--fault-line:#a0518a;--write:#0067a5;--read:#c65a00;--commit:#00795a;--error:#b3261e;
--done:#00795a1f;--cut:#e3e6ec;--mark:#1f2430;--page:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e7eaf0;--faint:#a3acbc;--card:#151922;--edge:#343b49;
--band:#1e2430;--runs:#333c4c;--runs-edge:#75829a;--down:#4a2523;--down-line:#ff8f82;--paused:#45381a;
--paused-line:#f0bd55;--fault:#402a3c;--fault-line:#dd94c8;--write:#62bdf5;--read:#ffa24d;--commit:#35cf9f;
--error:#ff8a7e;--done:#35cf9f26;--cut:#2a303d;--mark:#fff;--page:#0e1117}}
svg{font-family:-apple-system,'Segoe UI','Helvetica Neue',Helvetica,Arial,sans-serif;font-size:12px}
svg text{fill:var(--ink)}
svg .n{font-weight:600;text-anchor:end}
svg .s{font-size:10.5px;fill:var(--faint);text-anchor:end}
svg .h{font-size:11px;fill:var(--faint);text-anchor:end;letter-spacing:.04em}
svg .small{font-size:11px}
svg .tick{font-size:11px;fill:var(--faint);text-anchor:middle;paint-order:stroke;stroke:var(--card);
stroke-width:5px}
svg .later{font-style:italic;font-size:10.5px}
svg .begin{text-anchor:start}
svg .end{text-anchor:end}
svg .marked{font-weight:700;font-size:12px}
svg .c-text{fill:var(--commit)}
svg .head{font-size:16px;font-weight:700}
svg .bad{fill:var(--error)}
svg .mono{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}
svg .halo{paint-order:stroke;stroke:var(--band);stroke-width:3px;stroke-linejoin:round}
svg .z{display:none}
svg path{fill:none;vector-effect:non-scaling-stroke}
.card{fill:var(--card);stroke:var(--edge)}
.band{fill:var(--band)}
.grid{stroke:var(--edge)}
.runs{fill:var(--runs);stroke:var(--runs-edge)}
.down{fill:url(#hatch-down);stroke:var(--down-line)}
.paused{fill:url(#hatch-paused);stroke:var(--paused-line)}
.fault{fill:url(#hatch-fault);stroke:var(--fault-line)}
.ended{fill:url(#hatch-ended);stroke:var(--runs-edge)}
.cut{fill:url(#hatch-cut)}
.f-down{fill:var(--down)}.f-paused{fill:var(--paused)}.f-fault{fill:var(--fault)}.f-cut{fill:var(--cut)}
svg .f-ink{fill:var(--ink)}
.f-ended{fill:var(--band)}.s-ended{stroke:var(--runs-edge);opacity:.6}
.s-down{stroke:var(--down-line);stroke-width:1.4;opacity:.55}
.s-paused{stroke:var(--paused-line);opacity:.6}
.c-fault{fill:var(--fault-line);opacity:.6}
.s-cut{stroke:var(--faint);opacity:.5}
.w{fill:var(--write);stroke:var(--band);stroke-width:.6}
.a{fill:none;stroke:var(--write);stroke-width:1.3}
.leads{stroke:var(--faint);stroke-width:1.2}
svg .tiny{font-size:9.5px;fill:var(--faint)}
.w-line{stroke:var(--write);stroke-width:1.4;opacity:.6}
svg .r{fill:var(--read)}
svg #r{fill:inherit}
.r-line{stroke:var(--read);stroke-width:1.6;opacity:.7}
.c{fill:var(--commit)}
.stairs{stroke:var(--commit);stroke-width:1.6}
svg .done{fill:var(--done)}
.x{stroke:var(--error);stroke-width:2}
.e{stroke:var(--error);stroke-width:2}
.u{fill:var(--card);stroke:var(--error);stroke-width:1.4}
.wait{stroke:var(--faint);stroke-width:2.5;opacity:.55}
svg .m{fill:var(--ink)}
svg #m{fill:inherit}
.o-out{fill:none;stroke:var(--mark);stroke-width:2.2}
.o-in{fill:none;stroke:var(--card);stroke-width:1}
.along{stroke:var(--mark);stroke-width:1;stroke-dasharray:2 3;opacity:.7}
.guide{stroke:var(--mark);stroke-width:1;stroke-dasharray:5 4;opacity:.75}
.arrow{stroke:var(--ink);stroke-width:1.6}
.b{fill:var(--mark)}
svg .b-text{fill:var(--page);font-size:11px;font-weight:700;text-anchor:middle}
"""

PAGE_STYLE = """
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 -apple-system,'Segoe UI','Helvetica Neue',
Helvetica,Arial,sans-serif}
main{max-width:1480px;margin:0 auto;padding:20px 24px 40px}
h1{font-size:21px;line-height:1.35;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:16px;margin:26px 0 8px}
.fails{color:var(--error)}.passes{color:var(--commit)}
p{margin:4px 0}.faint{color:var(--faint)}
code,.mono{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:13px}
code{background:var(--band);border:1px solid var(--edge);border-radius:5px;padding:2px 7px;
overflow-wrap:anywhere}
figure{margin:0;border:1px solid var(--edge);border-radius:10px;background:var(--card);overflow-x:auto}
figure svg{display:block;width:100%;min-width:780px;height:auto}
.two{display:grid;grid-template-columns:minmax(0,2.3fr) minmax(260px,1fr);gap:22px;align-items:start}
@media (max-width:1000px){.two{grid-template-columns:1fr}}
ol,ul{margin:0;padding:0;list-style:none}
.steps li{display:grid;grid-template-columns:26px 78px 1fr;padding:4px 0;border-bottom:1px solid var(--edge);
font-size:14px;line-height:1.4;overflow-wrap:anywhere}
.steps b{display:inline-block;width:18px;height:18px;border-radius:9px;background:var(--mark);
color:var(--page);font-size:11px;line-height:18px;text-align:center}
.steps span{color:var(--faint);font-variant-numeric:tabular-nums}
.story li{font-size:13px;white-space:pre-wrap;overflow-wrap:anywhere;padding:1px 4px;border-radius:3px}
.story{columns:2 420px;column-gap:28px}
.tools{display:none;float:right;font-size:13px}.live .tools{display:block}
button{font:inherit;color:inherit;background:var(--band);border:1px solid var(--edge);border-radius:5px;
padding:1px 10px;cursor:pointer}
.live .zooms{cursor:grab}.live .key{cursor:pointer}.off{opacity:.35}
.no-w .w,.no-w .a,.no-w .w-line,.no-x .x,.no-r .r,.no-r .r-line,.no-c .c,.no-c .stairs,.no-c .done,
.no-e .e,.no-e .u,.no-e .wait,
.no-m .m{display:none}
.no-w .key .w,.no-w .key .a,.no-x .key .x,.no-r .key .r,
.no-c .key .c,.no-e .key .e,.no-e .key .u,.no-m .key .m{display:inline}
#tip{position:fixed;display:none;max-width:460px;background:var(--ink);color:var(--page);font-size:13px;
line-height:1.4;padding:6px 10px;border-radius:6px;pointer-events:none;overflow-wrap:anywhere;z-index:9}
#cursor{stroke:var(--error);stroke-width:1.5;display:none}
@media print{main{max-width:none;padding:0}.tools{display:none}figure{overflow:visible}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""

# It has no `<` and no `&`, so that the page is XML as well. Texts of programs are never made markup here.
SCRIPT = """
(function(){
'use strict';
document.documentElement.classList.add('live');
var tip=document.getElementById('tip');
document.addEventListener('mouseover',function(event){
  var at=event.target.closest ? event.target.closest('use,rect,path') : null;
  if(at===null){tip.style.display='none';return;}
  var title=at.querySelector(':scope > title');
  if(title!==null){at.tip=title.textContent;title.remove();at.setAttribute('aria-label',at.tip);}
  if(at.tip){tip.textContent=at.tip;tip.style.display='block';}else{tip.style.display='none';}
});
document.addEventListener('mousemove',function(event){
  var wide=document.documentElement.clientWidth;
  tip.style.left=Math.max(4,Math.min(event.clientX+14,wide-tip.offsetWidth-8))+'px';
  var below=event.clientY+18, above=event.clientY-tip.offsetHeight-12;
  tip.style.top=(below+tip.offsetHeight>innerHeight ? above : below)+'px';
});
document.querySelectorAll('.key').forEach(function(key){
  key.addEventListener('click',function(){
    var hidden=document.body.classList.toggle('no-'+key.getAttribute('data-of'));
    key.classList.toggle('off',hidden);
  });
});
document.querySelectorAll('.zooms').forEach(function(plot){
  var width=plot.width.baseVal.value, zoom=1, left=0;
  var items=Array.prototype.map.call(plot.querySelectorAll('rect,use,text'),function(one){
    return {one:one,x:Number(one.getAttribute('x')),
      w:one.tagName==='rect' ? Number(one.getAttribute('width')) : -1,
      k:Number(one.getAttribute('data-k')||0)};
  });
  var paths=Array.prototype.filter.call(plot.querySelectorAll('path'),function(one){
    return one.closest('defs')===null;});
  function draw(){
    left=Math.max(0,Math.min(left,width*(1-1/zoom)));
    items.forEach(function(item){
      // The number of a step stays as wide as it is.
      var fixed=item.w>=0 ? item.one.classList.contains('b') : false, half=fixed ? item.w/2 : 0;
      item.one.setAttribute('x',(item.x+half-left)*zoom-half);
      if(item.w>=0 ? !fixed : false){item.one.setAttribute('width',Math.max(1.5,item.w*zoom));}
      if(item.k>0){item.one.style.display=zoom>=item.k ? 'inline' : 'none';}
    });
    paths.forEach(function(one){one.setAttribute('transform','scale('+zoom+',1) translate('+(-left)+',0)');});
  }
  function around(x,factor){
    var before=zoom;
    zoom=Math.max(1,Math.min(zoom*factor,4000));
    left+=x/before-x/zoom;
    draw();
  }
  function place(event){
    var whole=plot.ownerSVGElement, box=whole.getBoundingClientRect();
    return (event.clientX-box.left)*whole.viewBox.baseVal.width/box.width-plot.x.baseVal.value;
  }
  plot.addEventListener('wheel',function(event){
    if(!event.ctrlKey){return;}
    event.preventDefault();
    around(place(event),Math.exp(-event.deltaY*0.01));
  },{passive:false});
  plot.addEventListener('dblclick',function(event){around(place(event),event.shiftKey ? 0.5 : 2);});
  var held=null;
  plot.addEventListener('pointerdown',function(event){held=place(event);});
  window.addEventListener('pointerup',function(){held=null;});
  window.addEventListener('pointermove',function(event){
    if(held===null||zoom===1){return;}
    var x=place(event);
    left-=(x-held)/zoom;held=x;draw();
  });
  var tools=plot.closest('section').querySelector('.tools');
  tools.querySelectorAll('button').forEach(function(button){
    button.addEventListener('click',function(){
      var factor=Number(button.getAttribute('data-zoom'));
      if(factor===0){zoom=1;left=0;draw();}else{around(width/2,factor);}
    });
  });
  var cursor=plot.querySelector('#cursor');
  if(cursor!==null){
    document.querySelectorAll('[data-x]').forEach(function(line){
      line.addEventListener('mouseenter',function(){
        var x=line.getAttribute('data-x');
        cursor.setAttribute('d','M'+x+' 0V'+plot.height.baseVal.value);cursor.style.display='inline';
      });
      line.addEventListener('mouseleave',function(){cursor.style.display='none';});
    });
  }
});
})();
"""


@dataclass(frozen=True, slots=True)
class Section:
    """A figure of the page. ``steps``: numbered lines beside it, each with its time."""

    heading: str
    figure: str
    steps: Sequence[tuple[str, str, str]] = ()
    # A line below the steps.
    below: str = ""
    zooms: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    title: str
    error: str
    command: str
    facts: str
    sections: Sequence[Section]
    # Lines with where they are on the time axis, or None.
    story: Sequence[tuple[str, float | None]] = ()
    left_out: Sequence[str] = field(default=())


def page(content: Page) -> str:
    """One file of HTML, which is well-formed XML too."""
    digest = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    parts = [
        "<!DOCTYPE html>",
        '<html xmlns="http://www.w3.org/1999/xhtml" lang="en"><head><meta charset="utf-8"/>',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        f"<title>{clean(content.title, 200)}</title>",
        f"<style>{STYLE}{PAGE_STYLE}</style></head><body>",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="0" height="0" style="position:absolute" '
        f'aria-hidden="true">{DEFINITIONS}</svg><main>',
        *_header(content),
        *(part for section in content.sections for part in _section(section)),
        *_story(content.story),
    ]
    if content.left_out:
        parts.append("<h2>Not drawn in full</h2><ul>")
        parts += [f"<li>{clean(line, STORY_LINE_MAX)}</li>" for line in content.left_out]
        parts.append("</ul>")
    parts.append(f'</main><div id="tip"></div><script>{SCRIPT}</script></body></html>\n')
    return "\n".join(parts)


def _header(content: Page) -> list[str]:
    parts = [f'<header><p class="faint">{clean(content.title, 300)}</p>']
    if content.error:
        parts.append(f'<h1 class="fails">{clean(content.error, ERROR_MAX)}</h1>')
    else:
        parts.append('<h1 class="passes">The test passes</h1>')
    parts.append(f'<p class="faint">{clean(content.facts, 400)}</p>')
    if content.command:
        parts.append(f"<p>The same run again: <code>{clean(content.command, 500)}</code></p>")
    return [*parts, "</header>"]


def _section(section: Section) -> list[str]:
    parts = ["<section>"]
    if section.zooms:
        parts.append(
            '<p class="tools">Double click or Ctrl and wheel: zoom. Drag: move. '
            '<button data-zoom="2">+</button> <button data-zoom="0.5">−</button> '
            '<button data-zoom="0">all</button></p>'
        )
    parts.append(f"<h2>{clean(section.heading, 200)}</h2>")
    if not section.steps:
        return [*parts, f"<figure>{section.figure}</figure></section>"]
    parts.append(f'<div class="two"><figure>{section.figure}</figure><div><ol class="steps">')
    for number, time, words in section.steps:
        parts.append(f"<li><b>{number}</b><span>{time}</span><div>{clean(words, 300)}</div></li>")
    return [*parts, f'</ol><p class="faint">{clean(section.below, 200)}</p></div></div></section>']


def _story(story: Sequence[tuple[str, float | None]]) -> list[str]:
    if not story:
        return []
    parts = ['<h2>What happened</h2><ul class="story mono">']
    for line, x in story[:STORY_LINES_MAX]:
        at = "" if x is None else f' data-x="{x:.1f}"'
        parts.append(f"<li{at}>{clean(line, STORY_LINE_MAX)}</li>")
    if len(story) > STORY_LINES_MAX:
        parts.append(f"<li>({len(story) - STORY_LINES_MAX} other lines)</li>")
    return [*parts, "</ul>"]
