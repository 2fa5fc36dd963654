"""English stop words: the function words that running text is full of and menus, tags and tables lack.

The closed classes of English grammar (articles, pronouns, prepositions, conjunctions, auxiliaries, their contractions)
and the commonest adverbs, written down for carnac; no list was copied. Words are lower case with a straight apostrophe,
as `text.split_words` yields them. Other languages come with their own list.
"""

from __future__ import annotations

_ENGLISH = """
a an the
i me my mine myself we us our ours ourselves you your yours yourself yourselves
he him his himself she her hers herself it its itself they them their theirs themselves one oneself
this that these those here there
who whom whose which what when where why how whoever whatever whichever whenever wherever
each every either neither both all any some none no few fewer little less least many much more most several enough other
others another such same own
someone somebody something somewhere anyone anybody anything anywhere everyone everybody everything everywhere
nobody nothing nowhere
am is are was were be been being
have has had having do does did doing done
can could may might must shall should will would ought
and or but nor so yet if unless until till while whereas although though because since as than whether lest
about above across after against along among around at before behind below beneath beside besides between beyond by
despite down during except for from in inside into like near of off on onto out outside over past per through throughout
to toward towards under up upon via with within without
not never only also just even still already again once twice ever always often sometimes perhaps maybe too very quite
rather almost then thus hence therefore however moreover otherwise instead now
i'm i've i'd i'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'd it'll
we're we've we'd we'll they're they've they'd they'll that's that'll there's here's who's what's where's how's let's
isn't aren't wasn't weren't haven't hasn't hadn't don't doesn't didn't
can't cannot couldn't mightn't mustn't shan't shouldn't won't wouldn't
"""

STOP_WORDS: frozenset[str] = frozenset(_ENGLISH.split())
